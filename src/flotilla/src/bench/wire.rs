//! The generated types of the protocols that only the benchmark speaks.

/// Declares the module of one generated package; generated code answers to no lint.
macro_rules! generated {
    ($module:ident, $package:literal) => {
        #[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, dead_code)]
        #[allow(clippy::disallowed_types, clippy::disallowed_methods, clippy::too_many_lines)]
        #[allow(rustdoc::all)]
        pub(super) mod $module {
            include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        }
    };
}

generated!(etcdserverpb, "etcdserverpb");
generated!(echo, "bench");
