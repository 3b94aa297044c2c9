"""Waits, one allocation at a time, until what was started has settled. /opt/refuse makes it fail, /opt/hang-settle hang."""

from maand import allocation_ip, run_ssh, semaphore

with semaphore("settle", capacity=3):
    run_ssh(allocation_ip(), "test ! -e /opt/hang-settle || sleep 615; test ! -e /opt/refuse")
    print("settled on", allocation_ip())
