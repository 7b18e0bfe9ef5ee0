from tests.test_gradcheck import *  # noqa: F403
