"""Templates that want more than there is: told with their line, and nothing else is harmed."""

import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from maand_executor.content.renderer import TemplateRenderer
from maand_executor.content.templates import LARGEST_RENDERED_BYTES, TemplateSubject, TemplateWork
from maand_executor.errors import TemplateError
from maand_executor.rules.facts import Allocation, AllocationViews, Worker
from tests.waiting import until


def subject(number: int) -> TemplateSubject:
    return TemplateSubject(
        allocation=Allocation(allocation_id=f"id-{number}", job="api", worker=f"w{number}", index=number),
        worker=Worker(name=f"w{number}"),
        bucket_id="b",
        job_path="/opt",
    )


def work(text: str, *, workers: int = 1, **others: str) -> TemplateWork:
    sources = {"app.j2": text.encode(), **{f"{name}.j2": other.encode() for name, other in others.items()}}
    return TemplateWork(
        job="api",
        sources=sources,
        modes=dict.fromkeys(sources, 0o644),
        subjects=tuple(subject(number) for number in range(workers)),
        views=AllocationViews(namespaces={}, readable={}),
    )


@pytest.fixture
async def renderer() -> AsyncIterator[TemplateRenderer]:
    renderer = TemplateRenderer()
    yield renderer
    await renderer.close()


def pid_of(renderer: TemplateRenderer) -> int:
    assert renderer._process
    return renderer._process.pid


async def test_every_template_is_rendered_for_every_allocation(renderer: TemplateRenderer) -> None:
    rendered = await renderer.render(work("{{ worker_ip }}", workers=3, other="{{ allocation_index }}"))
    assert {one: [file.data for file in files] for one, files in rendered.items()} == {
        f"id-{number}": [f"w{number}".encode(), f"{number}".encode()] for number in range(3)
    }


async def test_one_process_serves_one_job_after_the_other(renderer: TemplateRenderer) -> None:
    await renderer.render(work("a"))
    first = pid_of(renderer)
    await renderer.render(work("b"))
    assert pid_of(renderer) == first


MEMORY = "needs more memory"
MUCH_OUT_OF_LITTLE = {
    "repetition": ("{{ 'x' * 3000000000 }}", MEMORY),
    "repetition of a list": ("{{ [1] * 3000000000 }}", MEMORY),
    "padding": ("{{ 'x'.ljust(3000000000) }}", MEMORY),
    "a format": ("{{ '%3000000000d' % 1 }}", MEMORY),
    "a filter": ("{{ 'x' | center(3000000000) }}", MEMORY),
    "doubling": (
        "{% set n = namespace(x='x') %}{% for i in range(40) %}{% set n.x=n.x ~ n.x %}{% endfor %}",
        MEMORY,
    ),
    "a loop": ("{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}", "larger than 16 MiB"),
    "a long range": ("{{ range(3000000000) | list }}", "Range too big"),
}


@pytest.mark.parametrize(("text", "words"), MUCH_OUT_OF_LITTLE.values(), ids=MUCH_OUT_OF_LITTLE)
async def test_much_out_of_little_is_told_with_its_line(renderer: TemplateRenderer, text: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words) as told:
        await renderer.render(work(f"first line\n{text}"))
    assert "workspace/jobs/api/app.j2:2: " in str(told.value)
    assert (await renderer.render(work("{{ job }}")))["id-0"][0].data == b"api"


async def test_a_template_that_computes_for_too_long_is_stopped(renderer: TemplateRenderer) -> None:
    with pytest.raises(TemplateError, match=r"app\.j2:2: takes longer than 10 s to render"):
        await renderer.render(work("\n{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"))


async def test_a_file_may_be_as_long_as_the_limit(renderer: TemplateRenderer) -> None:
    rendered = await renderer.render(work(f"{{{{ 'x' * {LARGEST_RENDERED_BYTES} }}}}"))
    assert len(rendered["id-0"][0].data) == LARGEST_RENDERED_BYTES


async def test_the_files_of_a_job_have_a_limit_together(renderer: TemplateRenderer) -> None:
    with pytest.raises(TemplateError, match="larger than 256 MiB on all workers together"):
        await renderer.render(work("{{ 'x' * 16000000 }}", workers=20))


async def test_a_process_that_is_killed_is_told_and_replaced() -> None:
    renderer = TemplateRenderer()
    await renderer.render(work("a"))
    os.kill(pid_of(renderer), signal.SIGSTOP)
    os.kill(pid_of(renderer), signal.SIGKILL)
    with pytest.raises(TemplateError, match=r"app\.j2: the process that rendered it was killed \(SIGKILL\)"):
        await renderer.render(work("b"))
    assert (await renderer.render(work("c")))["id-0"][0].data == b"c"
    await renderer.close()


async def test_a_process_that_does_not_answer_is_told_and_replaced() -> None:
    renderer = TemplateRenderer(longest_wait=timedelta(seconds=2))
    await renderer.render(work("a"))
    frozen = pid_of(renderer)
    os.kill(frozen, signal.SIGSTOP)
    with pytest.raises(TemplateError, match="was not rendered within 2 s"):
        await renderer.render(work("b"))
    await until(lambda: not Path(f"/proc/{frozen}").exists())
    assert (await renderer.render(work("c")))["id-0"][0].data == b"c"
    await renderer.close()
