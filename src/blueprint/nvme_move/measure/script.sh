# Writes a file in each of some directories, reads it back and removes it, past the page cache where the file system lets
# it. Leaves how many bytes a second that were, as JSON by the names of the directories.
#
#   ROOT OUT BYTES NAME:KEEP..   the directories are ROOT/NAME; KEEP percent of the file system stay free, and never less
#                                than what is written.
set -u
LC_ALL=C
export LC_ALL
root=$1 out=$2 block=4194304
blocks=$((($3 + block - 1) / block)) told= own=
shift 3

# Also where the pod's time is over. What is under way ends first: 64 MiB at most.
clean() {
  [ -n "$own" ] || return 0
  rm -f "$own/data"
  rmdir "$own" 2>/dev/null
  own=
}
trap clean EXIT
trap 'exit 143' HUP INT TERM

# Words that need no quoting in JSON.
plain() {
  printf '%s' "$1" | tail -n 1 | tr -cd 'A-Za-z0-9 .,:;/_()-' | cut -c 1-160
}

# Hundredths of a second since the machine was started.
hundredths() {
  read -r up _ </proc/uptime
  echo "${up%.*}${up#*.}"
}

# All blocks in one direction: `micros` are the microseconds that it took, as dd tells them; one that does not is timed by the
# clock, which is coarse. Fails with dd's words in `said`.
pass() {
  at=0 micros=0 begun=$(hundredths)
  while [ "$at" -lt "$blocks" ]; do
    n=$((blocks - at))
    [ "$n" -le 16 ] || n=16
    if [ "$1" = write ]; then
      said=$(dd if=/dev/zero of="$own/data" bs=$block count=$n seek=$at conv=notrunc,fsync $2 2>&1) || return 1
    else
      said=$(dd if="$own/data" of=/dev/null bs=$block count=$n skip=$at $2 2>&1) || return 1
    fi
    took=$(printf '%s\n' "$said" | sed -n 's/^.* copied, \([0-9.e-]*\) s.*$/\1/p')
    case $took in
      *e-*) took=0.0001 ;;
      '' | *[!0-9.]*) coarse=',"coarse":true' took=0 ;;
    esac
    part=${took#*.}
    [ "$part" != "$took" ] || part=0
    part=$(printf '%.6s' "${part}000000")
    micros=$((micros + ${took%%.*} * 1000000 + 1$part - 1000000))
    at=$((at + n))
  done
  [ -z "$coarse" ] || micros=$((($(hundredths) - begun) * 10000))
  [ "$micros" -gt 0 ] || micros=10000
}

# Bytes a second.
rate() {
  echo $((blocks * block / 1024 * 1000000 / micros * 1024))
}

# Writes and reads in `own`; what came of it is in `is`.
measure() {
  cached= coarse=
  if ! pass write oflag=direct; then
    rm -f "$own/data"
    cached=',"cached":true'
    pass write '' || return 1
  fi
  wrote=$(rate)
  if [ -n "$cached" ]; then
    pass read '' || return 1
  else
    pass read iflag=direct || return 1
  fi
  is="{\"write\":$wrote,\"read\":$(rate)$cached$coarse}"
}

for one in "$@"; do
  name=${one%:*} keep=${one##*:} why=
  dir=$root/$name
  # FILESYSTEM SIZE USED FREE, in KiB.
  set -- $(df -Pk "$dir" 2>/dev/null | tail -n 1)
  size=${2:-} free=${4:-} need=$((blocks * 4096))
  case $size$free in
    '' | *[!0-9]*) why='how much room there is cannot be told' ;;
    *)
      stays=$((size / 100 * keep))
      [ "$stays" -ge "$need" ] || stays=$need
      [ "$((free - need))" -ge "$stays" ] || why="$free of $size KiB are free, and $need are written"
      ;;
  esac
  if [ -z "$why" ]; then
    own=$dir/.pvemig-measure
    if [ -L "$own" ]; then
      own= why='.pvemig-measure is a symbolic link'
    else
      # Of one that was killed before it could.
      rm -f "$own/data" && rmdir "$own" 2>/dev/null
      if ! said=$(mkdir -m 700 "$own" 2>&1); then
        own= why=$(plain "$said")
      elif ! measure; then
        why=$(plain "$said")
      fi
    fi
    clean
    [ ! -e "$dir/.pvemig-measure/data" ] || why='.pvemig-measure/data is left there, and cannot be removed'
  fi
  [ -z "$why" ] || is="{\"skipped\":\"$why\"}"
  told="$told${told:+,}\"$name\":$is"
done
printf '{%s}' "$told" >"$out"
