"""`python -m milepost` is the command `milepost`, also where the folder of scripts is not on the PATH."""

from milepost.cli import main

raise SystemExit(main())
