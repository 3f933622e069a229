"""Log lines: whole, structured, and on standard error alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNBUFFERED = os.environ | {"PYTHONUNBUFFERED": "1"}  # as in many containers: each write of a part is a system call
TALK = """
import sys
from service.logs import LogConfig, configure, get_logger
configure(LogConfig(format="json", level="info"), sys.argv[1])
log = get_logger()
for number in range(400):
    log.info("said", call="rtc_1", number=number)
    log.debug("not said")
"""


@pytest.mark.slow
def test_processes_that_share_standard_error_do_not_tear_each_others_lines():
    read, write = os.pipe()
    with open(read, encoding="utf-8") as lines:
        talkers = [
            subprocess.Popen(
                [sys.executable, "-c", TALK, name], cwd=ROOT, stderr=write, stdout=subprocess.PIPE, env=UNBUFFERED
            )
            for name in ("relay", "agent")
        ]
        os.close(write)
        said = [json.loads(line) for line in lines]
    assert [talker.communicate()[0] for talker in talkers] == [b"", b""]
    for name in ("relay", "agent"):
        assert [line["number"] for line in said if line["process"] == name] == list(range(400))
    assert {line["call"] for line in said} == {"rtc_1"}
    assert {line["event"] for line in said} == {"said"}
