from tests.test_convert import *  # noqa: F403
