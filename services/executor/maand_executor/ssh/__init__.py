"""SSH: everything that reaches a worker goes through here; the only place of maand that names asyncssh.

remote.Remote        one per bucket: run, copy, connect, probes. What the rest of the executor uses
  pool               connections kept and shared, the least recently used closed when there are too many
    connect          one login: paced, retried while nothing was refused, host key and user checked
      client_config  what `ssh_config` says of a host: address, jump hosts, keys
      jumps          connections to jump hosts
      host_keys      what is pinned in secrets/known_hosts
      credentials    the private key, the agent, and what `ssh_config` names
        agent        an SSH agent, asked within a limit
      login_errors   what a failed login means
    channels         a channel for each command, within the limits of its connection
    pacing           the brakes: logins per second, channels per connection, copies at once
    waits            long waits for a connection or a channel: told, and given up in the end
  execution          one command on one channel: output, limit, end of the process tree
  copy, rsync        rsync over a pooled connection; rsync_pipes passes its bytes
"""
