# What every remote command starts with: the first thing on the channel's input, read by a line of bash that the worker's login
# shell starts (`remote_commands.command_line`). Comments are stripped before it is sent.
#
# After this the input carries, in this order: the order (bash text up to a NUL byte: environment, checks, the script), the bytes
# of the command's own input, and then a dot now and then: it is the lifeline. Any other byte, its end, silence, or the limit
# ends the process tree: TERM, some seconds of grace, KILL. So cancelling needs no second channel, and an executor that died or
# was cut off leaves nothing running.
# Secrets travel in the order only: `ps` on the worker shows neither it nor this text.

unset maand_bootstrap

# Tell the executor, before any output of the command, that it starts, or why it does not.
maand_say() { printf "\2maand %s\n" "$*"; }
maand_refuse() { maand_say refused "$@"; exit 125; }

# Set maand_alive to the living processes of this command: those of its session, and descendants of any process seen before.
maand_tree() {
  local entry line pid grown=1
  maand_alive=()
  while ((grown)); do
    grown=0
    for entry in /proc/[0-9]*/stat; do
      line=; IFS= read -r -d "" line < "$entry"
      pid=${line%% *}; set -- ${line##*) }
      [[ -z $line || $1 == Z || $pid == "$BASHPID" || ${maand_seen[$pid]} == alive ]] && continue
      [[ $4 == "$maand_session" || -n ${maand_seen[$2]} || -n ${maand_seen[$pid]} ]] || continue
      maand_seen[$pid]=alive; maand_alive+=("$pid"); grown=1
    done
  done
  for pid in "${maand_alive[@]}"; do maand_seen[$pid]=seen; done
}

# The session of this command, when it is its own: led by this shell, or by the sudo that started it.
maand_find_session() {
  local line; IFS= read -r -d "" line < /proc/$$/stat
  set -- ${line##*) }
  maand_session=none
  if [[ $4 == "$$" ]] || [[ -n $SUDO_UID && $4 == "$PPID" ]]; then maand_session=$4; fi
}

# Watch the lifeline (descriptor 3): limit in seconds, seconds of grace, and after how many seconds silence is taken for its end.
maand_watch() {
  trap "" TERM HUP INT PIPE
  exec < /dev/null > /dev/null 2>&1
  local beat=.
  while [[ $beat == . ]] && ((SECONDS < $1)); do
    beat=; IFS= read -r -N 1 -t $(($3 < $1 - SECONDS ? $3 : $1 - SECONDS)) -u 3 beat
  done
  [[ -d /proc/$$ ]] || exit 0
  declare -A maand_seen=([$$]=seen)
  maand_find_session
  maand_tree; kill -TERM "${maand_alive[@]}"
  local ends=$((SECONDS + $2 + 1))
  while ((SECONDS < ends)); do
    sleep 0.1; maand_tree
    ((${#maand_alive[@]})) || exit 0
  done
  kill -KILL "${maand_alive[@]}"
}

# Begin: the watch in the background (its three numbers), the command's input (that many bytes) on descriptor 0.
maand_begin() {
  if (($4)); then
    local directory=/dev/shm file; [[ -w $directory ]] || directory=${TMPDIR:-/tmp}
    file=$(umask 077; mktemp "$directory/maand.XXXXXXXX") && head -c "$4" <&3 > "$file" && exec < "$file" || maand_refuse input
    rm -f "$file"
  fi
  maand_watch "$1" "$2" "$3" &
  disown; exec 3<&-
}

exec 3<&0 < /dev/null
IFS= read -r -d "" -u 3 maand_order || exit 125
eval "$maand_order"
