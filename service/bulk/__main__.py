"""``python -m service.bulk``."""

from service.bulk.command import main

if __name__ == "__main__":
    main()
