from tests.test_modules import *  # noqa: F403
