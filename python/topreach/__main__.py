import sys

from topreach.cli import main

sys.exit(main())
