"""The Python that README.md shows; what it says to type is typed in tests/fleet/test_pages.py."""

import asyncio
import re
import sys
from pathlib import Path
from textwrap import indent

import pytest

from ai_client.testing import Simulator
from tests.docs.pages import blocks, walk
from tests.docs.reader import new_reader
from tests.fleet.clones import empty_clone
from tests.fleet.waiting import wait_until
from tests.infra.stacks import KEY


async def test_the_python_of_the_readme_gets_an_answer(tmp_path: Path) -> None:
    """As it is printed, but for the key and the address of the provider."""
    (shown,) = blocks("README.md", "python")
    async with Simulator() as provider:
        code = shown.replace('"hs_test_…"', f'"{KEY}", "{provider.base_url}"')
        assert code != shown
        program = tmp_path / "program.py"
        body = indent(f"{code}\nprint(answer['choices'][0]['message']['content'])", "    ")
        program.write_text(f"import asyncio\n\nasync def main():\n{body}\n\nasyncio.run(main())\n")
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(program), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, said.decode()[:5]) == (0, "Hello")


@pytest.mark.slow
def test_just_the_client_in_five_minutes(tmp_path: Path) -> None:
    """The page's commands as somebody types them who has nothing but a clone."""
    checkout = empty_clone(tmp_path / "clone", state=tmp_path / "state", stack="none")
    reader = new_reader(checkout, tmp_path / "home", XDG_RUNTIME_DIR="")
    # The printed port may be another test's.
    reader.names = {"serve >~": "serve --port 0 >~"}
    log = tmp_path / "home" / "ai-client" / "serve.log"
    with walk("docs/how-to/just-the-client.md") as page:
        install, run, look, use, stop = (page.take() for _ in range(5))
        reader.types(install)
        reader.types(run)
        wait_until(lambda: "try:" in log.read_text(), within_s=120)
        try:
            assert "listening on " in reader.types(look)
            said = reader.types(use)
        finally:
            reader.types(stop)
    assert said.startswith("Say hello.")
    assert re.search(r"^total +1 ", said, re.MULTILINE)
    assert "FAIL" not in said
