"""`python -m smtp_proxy_client` is the same as the console script."""

import sys

from smtp_proxy_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
