from tests.test_whole_states import *  # noqa: F403
