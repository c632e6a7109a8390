"""The Python that README.md shows; what it says to type is typed in tests/fleet/test_pages.py."""

import asyncio
import sys
from pathlib import Path
from textwrap import indent

from ai_client.testing import Simulator
from tests.docs.pages import blocks
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
