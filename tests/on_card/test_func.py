from tests.test_func import *  # noqa: F403
