"""Row 9: reading a directory with very many files, beside `find`."""

from bench.model import Bound, Claim, Plan, Row, Series, ratios
from bench.worker import Took, command, work
from bench.workload import crowd, crowded

NUMBERS = (9,)
LIMIT = 2.0
"""Times what `find` takes."""
_FIND = "find"
_WALK = "tablefeed's scan"
_INTAKE = "tablefeed's rescan, without its ledger"


async def measure(plan: Plan) -> list[Row]:
    """The daemon's scan and `find`, in turn, over a directory that the kernel remembers."""
    directory = str(crowded(plan))
    find = (_FIND, directory, "-type", "f", "-printf", "%s %T@ %i\n")
    took: dict[str, list[Took]] = {_FIND: [], _WALK: [], _INTAKE: []}
    await command(*find)
    for _ in range(plan.runs):
        took[_FIND].append(await command(*find))
        for name, mode in ((_WALK, "walk"), (_INTAKE, "intake")):
            done = await work("bench.scan_work", mode, directory)
            if done["files"] != crowd(plan):
                raise RuntimeError(f"the scan gave {done['files']} of {crowd(plan)} files")
            took[name].append(Took(done["wall"], done["cpu"]))
    wall = {name: Series(name, "s", tuple(each.wall for each in values)) for name, values in took.items()}
    cpu = {name: Series(name, "CPU s", tuple(each.cpu for each in values)) for name, values in took.items()}
    claims = [
        Claim(f"{name} / find, {what}", "", ratios(of[name], of[_FIND]), Bound.AT_MOST, LIMIT)
        for name in (_WALK, _INTAKE)
        for what, of in (("time", wall), ("CPU", cpu))
    ]
    return [
        Row(
            9,
            f"scan of a directory with {crowd(plan):,} files",
            (*wall.values(), *cpu.values()),
            tuple(claims),
            (
                (
                    "find prints size, mtime and inode of each file to nowhere. The scan picks the feed's files by "
                    "their names and looks at each; the rescan makes a file version of each as well and asks a "
                    "ledger, for which something stands in here that knows them all. The start of Python is not "
                    "counted."
                ),
            ),
        )
    ]
