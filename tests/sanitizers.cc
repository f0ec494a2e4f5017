// What sanitizers are told not to report, and why. Linked into every test of their presets.

extern "C" __attribute__((visibility("default"))) const char* __tsan_default_suppressions() {
  // It sees the memcpy() of Rust's code but not its locks: the scratch of common/text/crate/src/fast_encode.rs goes from
  // thread to thread through a Mutex.
  return "race:rein::text::Tokenizer::\n";
}

extern "C" __attribute__((visibility("default"))) const char* __lsan_default_suppressions() {
  // ares_gethostbyname() of gRPC's resolver leaks the name.
  return "leak:libcares.so\n";
}
