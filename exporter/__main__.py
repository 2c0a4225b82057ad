"""``python -m exporter`` is ``inference-exporter``."""

import sys

from exporter.cli import main

sys.exit(main())
