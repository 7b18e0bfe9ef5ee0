from tests.test_packed import *  # noqa: F403
