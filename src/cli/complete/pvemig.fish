# fish completion of pvemig: `pvemig completions fish | source`, or as completions/pvemig.fish.
function __pvemig_candidates
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l found ($words[1] __complete -- $words[2..-1] "$current" 2>/dev/null)
    if test "$found[1]" = ":files"
        __fish_complete_path "$current"
    else if set -q found[1]
        printf '%s\n' $found
    end
end
complete -c pvemig -k -f -a '(__pvemig_candidates)'
