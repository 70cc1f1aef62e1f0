//! Tests of membership arithmetic.
