// What the thread sanitizer is told not to report, and why. Linked into every test of its preset.

extern "C" __attribute__((visibility("default"))) const char* __tsan_default_suppressions() {
  // It sees the memcpy() of Rust's code but not its locks: the scratch of common/text/crate/src/fast_encode.rs goes from
  // thread to thread through a Mutex.
  return "race:rein::text::Tokenizer::\n";
}
