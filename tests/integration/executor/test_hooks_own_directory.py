"""A hook's directory is its own: whatever it does there reaches no other hook, neither the store nor a worker."""

import hashlib
import os
import stat
from importlib.resources import files
from pathlib import Path

import pytest

from maand_executor.content.content_store import TreeEntry
from tests.integration.executor.deploy_bed import deploy_bed
from tests.integration.executor.hook_bed import HookBed
from tests.testbed.sshd import SshTestBed

JOB_FILES: dict[str, str | bytes] = {
    "app.conf": "listen 8080\n",
    "conf/deep.conf": "a = 1\n",
    "_hooks/helper.py": "WORD = 'helped'\n",
}
SPOILT = ("../app.conf", "../conf/deep.conf", "../Makefile", "maand.py", "maand.ts", "helper.py", "hook_a.py")
VANDAL = """
import os, pathlib, shutil, time
me = os.environ["ALLOCATION_IP"]
for path in map(pathlib.Path, {spoilt!r}):
    {deed}
pathlib.Path({meeting!r}, me).touch()
while len(os.listdir({meeting!r})) < int(os.environ["COUNT"]):
    time.sleep(0.01)
mine = pathlib.Path("../app.conf")
print("I see", repr(mine.read_text()) if os.access(mine, os.R_OK) else "nothing")
"""
SHOW = """
import hashlib, pathlib
for path in {paths!r}:
    print(path, hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest())
"""
DEEDS = {
    "write": "path.write_text(f'edited by {me}')",
    "make writable and write": "path.chmod(0o666); path.write_text(f'edited by {me}')",
    "write the same size and put the times back": (
        "was = path.stat(); path.chmod(0o666); path.write_text('?' * was.st_size); "
        "os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))"
    ),
    "append": "path.chmod(0o666); path.open('a').write('# more')",
    "truncate": "path.chmod(0o666); os.truncate(path, 0)",
    "delete": "path.unlink()",
    "rename": "path.rename(path.with_name(path.name + '.old'))",
    "replace": "path.with_name('new').write_text(f'edited by {me}'); path.with_name('new').replace(path)",
    "link and write": "os.link(path, 'other'); os.chmod('other', 0o666); open('other', 'w').write('edited'); os.unlink('other')",
    "forbid": "path.chmod(0)",
}


def vandal(deed: str, *, count: int, meeting: Path) -> str:
    meeting.mkdir(exist_ok=True)
    script = VANDAL.replace("{spoilt!r}", repr(SPOILT)).replace("{meeting!r}", repr(str(meeting))).replace("{deed}", deed)
    return script.replace('int(os.environ["COUNT"])', str(count))


def expected(bed: HookBed, paths: tuple[str, ...]) -> list[str]:
    """Return what `SHOW` prints when every byte is as it was built, or shipped."""
    sdk = {name: files("maand_hook_sdk").joinpath(name).read_bytes() for name in ("maand.py", "maand.ts")}
    lines = []
    for path in paths:
        content = sdk.get(path) or bed.files[os.path.normpath(f"_hooks/{path}")]
        lines.append(f"{path} {hashlib.sha256(content if isinstance(content, bytes) else content.encode()).hexdigest()}")
    return lines


@pytest.mark.parametrize("deed", DEEDS)
async def test_nothing_a_hook_does_to_its_files_reaches_the_next_hook_the_store_or_a_staged_tree(
    bed: HookBed, tmp_path: Path, deed: str
) -> None:
    bed.files |= JOB_FILES
    bed.add("hook_a", vandal(DEEDS[deed], count=3, meeting=tmp_path / "meeting"))
    bed.add("hook_b", SHOW.format(paths=SPOILT), "pre_deploy", "cli")
    assert (await bed.run(targets=3, batch_size=3)).ok
    assert (await bed.run("cli")).ok
    shown = [line for line in bed.lines() if not line.startswith("I see")]
    assert shown.count(expected(bed, SPOILT)[0]) == 4
    assert set(shown) == set(expected(bed, SPOILT))
    if "edited by" in DEEDS[deed]:
        assert sorted(set(bed.lines()) - set(shown)) == [f"I see 'edited by 10.0.0.{number}'" for number in (1, 2, 3)]
    assert bed.catalog.blob_reads == 1, "the store is as it was, so nothing was fetched anew"

    tree = [TreeEntry(path=file.path, mode=file.mode, sha256=file.sha256) for file in bed.catalog.files["api"]]
    (tmp_path / "shared").mkdir()
    bed.content.materialise(tree, tmp_path / "tree", shared=tmp_path / "shared")
    assert {path: (tmp_path / "tree" / path).read_text() for path in bed.files} == bed.files
    assert {stat.S_IMODE((tmp_path / "tree" / path).stat().st_mode) for path in bed.files} == {0o644}


async def test_a_hook_that_finds_its_way_into_the_store_damages_no_later_hook(bed: HookBed) -> None:
    bed.files |= JOB_FILES
    stored = bed.content.path(hashlib.sha256(b"listen 8080\n").digest())
    bed.add(
        "hook_a",
        f"""
        import os, time
        print(open("../app.conf").read().strip())
        stored = {str(stored)!r}
        while time.time() - os.stat(stored).st_ctime < 0.5:
            time.sleep(0.05)
        print(open("../app.conf").read().strip())
        was = os.stat(stored)
        os.chmod(stored, 0o600)
        open(stored, "w").write("?" * was.st_size)
        os.chmod(stored, was.st_mode)
        os.utime(stored, ns=(was.st_atime_ns, was.st_mtime_ns))
        """,
    )
    assert (await bed.run(targets=3, batch_size=1)).ok
    assert bed.lines() == ["listen 8080"] * 6
    assert bed.catalog.blob_reads == 3


async def test_a_hook_whose_content_is_lost_for_good_fails_and_says_why(bed: HookBed) -> None:
    bed.files |= JOB_FILES
    digest = hashlib.sha256(b"listen 8080\n").digest()
    bed.add("hook_a", f"import os; os.unlink({str(bed.content.path(digest))!r})")
    request = bed.request("pre_deploy", targets=2, batch_size=1)
    await bed.engine.prepare(request.run.bucket_id, bed.hooks)
    del bed.catalog.blobs[digest]
    first, second = (await bed.engine.run_event(request)).results
    await bed.journal.flush()
    assert first.ok
    assert second.exit_code == 126
    assert second.message.startswith("could not be started: stored content was lost or changed on this host, and the catalog")


async def test_workers_get_what_was_built_whatever_hooks_did_to_their_copies(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        await bed.start_gateway()
        hooks = {"hook_a": {"executed_on": ["pre_deploy", "after_allocation_started"]}}
        meeting = tmp_path / "meeting"
        for job in ("api", "next"):
            script = vandal(DEEDS["make writable and write"], count=1, meeting=meeting)
            contents = {path: str(text) for path, text in JOB_FILES.items()}
            bed.write_job(job, {"hooks": hooks}, {**contents, "_hooks/hook_a.py": script})
        await bed.build()
        for force in (False, True):
            ended = await bed.deploy(force=force)
            assert ended.state == "succeeded", ended.result
            for worker in bed.workers:
                for job in ("api", "next"):
                    assert bed.on(worker, f"jobs/{job}/app.conf").read_text() == "listen 8080\n"
                    assert bed.on(worker, f"jobs/{job}/conf/deep.conf").read_text() == "a = 1\n"
                    assert stat.S_IMODE(bed.on(worker, f"jobs/{job}/conf").stat().st_mode) == 0o755
