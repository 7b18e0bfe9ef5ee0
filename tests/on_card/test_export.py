from tests.test_export import *  # noqa: F403
