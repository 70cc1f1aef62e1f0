//! Tests of majorities.
