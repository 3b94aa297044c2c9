"""Workers that hang, flood, lie and break off, each beside a healthy one: real OpenSSH and rsync, with short limits."""
