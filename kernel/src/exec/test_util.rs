//! Placeholder
pub mod machine {
    pub fn cpu_count() -> usize {
        1
    }
    pub fn cpu_id() -> usize {
        0
    }
    pub fn now_ns() -> u64 {
        0
    }
    pub fn set_timer(_: Option<u64>) {}
    pub mod irq {
        pub use crate::arch::irq::Hooks;
        pub fn set_hooks(_: Hooks) {}
        pub fn service_pending() {}
        pub fn wait() {}
        pub fn send_ipi(_: usize) {}
    }
}
