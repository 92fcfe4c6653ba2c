#compdef pvemig
# zsh completion of pvemig: `source <(pvemig completions zsh)` behind compinit, or as `_pvemig` in the fpath.
_pvemig() {
    local line
    local -a found described
    found=("${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ ${found[1]-} == :files ]]; then
        _files
        return
    fi
    for line in "${found[@]}"; do
        [[ -n $line ]] && described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    _describe -V 'pvemig' described
}
if [[ ${funcstack[1]-} == _pvemig ]]; then
    _pvemig "$@"
else
    compdef _pvemig pvemig
fi
