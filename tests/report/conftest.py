"""What the tests of reports share."""

from test_report import make as make
