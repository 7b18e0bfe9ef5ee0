from tests.test_autocast import *  # noqa: F403
