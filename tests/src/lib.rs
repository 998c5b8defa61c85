//! rhea-tests
