"""Real OpenSSH workers for the tests: `sshd.py` on loopback, `fleet.py` as separate hosts; `fixtures.py` hands them to pytest."""
