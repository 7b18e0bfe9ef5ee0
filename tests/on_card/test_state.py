from tests.test_state import *  # noqa: F403
