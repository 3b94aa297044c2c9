"""Whoever answers where a worker should be: silent, talkative, nonsense, gone in the middle of a login."""

import asyncio
import os
from collections.abc import Awaitable
from pathlib import Path

import pytest

from tests.sick.sick_bed import Behave, sick_bed
from tests.testbed.sshd import SshTestBed

pytestmark = [pytest.mark.sick, pytest.mark.timeout(180)]


async def never_speak(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(4096):
        pass


async def write_for_ever(writer: asyncio.StreamWriter, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()


def flood_lines(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
    return write_for_ever(writer, b"welcome to a machine that is not well\r\n")


def flood_one_line(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
    return write_for_ever(writer, b"x" * 65536)


async def greet_and_fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await never_speak(reader, writer)


async def greet_and_speak_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n" + os.urandom(4096))
    await never_speak(reader, writer)


async def speak_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    await writer.drain()


@pytest.mark.parametrize(
    "behave", [never_speak, flood_lines, flood_one_line, greet_and_fall_silent, greet_and_speak_nonsense, speak_http]
)
async def test_whoever_cannot_be_logged_in_to_is_named_and_left_out(tmp_path: Path, test_bed: SshTestBed, behave: Behave) -> None:
    async with sick_bed(tmp_path, test_bed) as bed:
        await bed.write("1.0.0")
        async with bed.answering(behave):
            refused = await bed.deploy()
            assert refused.state == "failed"
            assert [failure.worker for failure in refused.result.failures] == [bed.sick.host]
            assert bed.deploy_bed.log_of(bed.healthy) == [], "nothing was changed"

            await bed.only_the_sick_one_failed(await bed.deploy(skip_unreachable=True))
        await bed.recovers()


@pytest.mark.parametrize("bytes_of_the_worker", [10, 500, 1500])
async def test_one_that_breaks_off_in_the_middle_of_a_login_is_named_and_left_out(
    tmp_path: Path, test_bed: SshTestBed, bytes_of_the_worker: int
) -> None:
    async with sick_bed(tmp_path, test_bed) as bed, bed.proxied() as proxy:
        await bed.write("1.0.0")
        proxy.hang_up_after = bytes_of_the_worker
        ended = await bed.deploy(skip_unreachable=True)
        await bed.only_the_sick_one_failed(ended)

        proxy.hang_up_after = 0
        await bed.recovers()
