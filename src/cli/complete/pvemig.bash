# bash completion of pvemig: `source <(pvemig completions bash)`, or as a file of bash-completion.
_pvemig() {
    local line
    local -a found
    COMPREPLY=()
    mapfile -t found < <("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [[ ${found[0]-} == :files ]]; then
        compopt -o default
        return
    fi
    for line in "${found[@]}"; do
        COMPREPLY+=("${line%%$'\t'*}")
    done
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace
    fi
}
complete -F _pvemig pvemig
