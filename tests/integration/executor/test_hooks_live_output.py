"""What hooks print, on its way through engine and journal: live, bounded, masked."""

import asyncio
import resource
import stat

from maand_executor.rules.cancel import CancelLevel
from tests.integration.executor.hook_bed import HookBed, until


async def test_lines_are_seen_while_the_hook_runs(bed: HookBed) -> None:
    bed.add("hook_live", "import time; print('began'); time.sleep(60)")
    task = asyncio.create_task(bed.run())
    await until(lambda: bed.lines() == ["began"])
    bed.cancel.raise_to(CancelLevel.NOW)
    await task


async def test_a_huge_line_is_split_cut_and_does_not_stop_the_hook(bed: HookBed) -> None:
    bed.add("hook_line", "import sys; sys.stdout.write('x' * 50_000_000); sys.stdout.flush(); print('end', file=sys.stderr)")
    assert (await bed.run()).ok
    lines = bed.lines()
    assert max(map(len, lines)) <= 64 * 1024
    assert sum(map(len, lines)) < 11 * 1024 * 1024
    assert any("output cut after 10 MiB" in line for line in lines)


async def test_two_hundred_megabytes_through_the_journal_keep_memory_bounded_and_the_end_known(bed: HookBed) -> None:
    bed.add(
        "hook_flood",
        """
        import sys
        block = b"x" * 99 + b"\\n"
        for _ in range(2_000):
            sys.stdout.buffer.write(block * 1_000)
        sys.exit("gave up after 200 MB")
        """,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (result,) = (await bed.run()).results
    assert result.last_lines[-1] == "gave up after 200 MB"
    assert "output cut after 10 MiB" in bed.lines()[-1]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


async def test_binary_output_is_shown_as_far_as_it_is_text(bed: HookBed) -> None:
    bed.add("hook_binary", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 1000 + b'\\nplain\\n')")
    assert (await bed.run()).ok
    assert bed.lines()[-1] == "plain"


async def test_a_secret_is_masked_plain_encoded_and_split_by_flushes(bed: HookBed) -> None:
    bed.catalog.secrets = ["p@ss word/42"]
    bed.add(
        "hook_leak",
        """
        import base64, json, sys, time
        from urllib.parse import quote
        secret = "p@ss word/42"
        print(secret, base64.b64encode(secret.encode()).decode(), quote(secret, safe=""), json.dumps({"a": secret}))
        for part in ("p@ss ", "wor", "d/42\\n"):
            sys.stdout.write(part)
            sys.stdout.flush()
            time.sleep(0.1)
        sys.exit(secret)
        """,
    )
    (result,) = (await bed.run()).results
    assert bed.lines() == ['*** *** *** {"a": "***"}', "***", "***"]
    assert result.last_lines == ('*** *** *** {"a": "***"}', "***", "***")


async def test_modes_of_scripts_do_not_matter(bed: HookBed) -> None:
    bed.add("hook_mode", "import os, stat; print(oct(stat.S_IMODE(os.stat('hook_mode.py').st_mode)))")
    await bed.run()
    assert bed.lines() == [oct(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)]
