//! Small vocabularies for tests.
