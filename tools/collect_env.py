"""Print the environment, what is missing, and the commands that mend it."""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis.environment import collect_env


def main(argv: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    found, faults = collect_env()
    width = max(map(len, found))
    for name, value in found.items():
        print(f'{name:{width}}  {value}')
    if not faults:
        print('\nNothing is missing.')
        return
    print('\nTo mend:')
    for fault, command in faults:
        print(f'- {fault}:\n  {command}')


if __name__ == '__main__':
    main()
