//! Tests that drive a booted guest from the host.
