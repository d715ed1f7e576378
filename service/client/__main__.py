"""``python -m service.client``."""

from service.client.command.main import PROGRAM, main

if __name__ == "__main__":
    main(prog_name=PROGRAM)
