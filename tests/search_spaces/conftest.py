from hypothesis import settings

# Tests do not assert on time; a busy machine must not fail them.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
