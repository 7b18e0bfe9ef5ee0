from tests.test_initial import *  # noqa: F403
