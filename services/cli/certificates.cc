#include "services/cli/certificates.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include "common/status/status_macros.h"

namespace rein::cli {
namespace {

namespace fs = std::filesystem;

using Key = std::unique_ptr<EVP_PKEY, decltype([](EVP_PKEY* key) { EVP_PKEY_free(key); })>;
using Certificate = std::unique_ptr<X509, decltype([](X509* one) { X509_free(one); })>;
using Memory = std::unique_ptr<BIO, decltype([](BIO* bio) { BIO_free(bio); })>;
using File = std::unique_ptr<FILE, decltype([](FILE* file) { fclose(file); })>;

constexpr absl::Duration kSkew = absl::Minutes(5);  // of clocks that are a little behind

std::string TextOf(BIO* memory) {
  char* text = nullptr;
  const long size = BIO_get_mem_data(memory, &text);
  return {text, static_cast<size_t>(size)};
}

std::string Pem(X509* certificate) {
  Memory memory(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(memory.get(), certificate);
  return TextOf(memory.get());
}

std::string Pem(EVP_PKEY* key) {
  Memory memory(BIO_new(BIO_s_mem()));
  PEM_write_bio_PKCS8PrivateKey(memory.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
  return TextOf(memory.get());
}

absl::Status Write(const std::string& path, const std::string& text, mode_t mode) {
  const std::string temporary = path + ".new";
  int file = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  bool good = file >= 0 && write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (file >= 0) good = close(file) == 0 && good;
  good = good && rename(temporary.c_str(), path.c_str()) == 0;
  return good ? absl::OkStatus() : absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
}

// Makes `link` name `target`, which lies beside it, and removes what it named before the last time.
absl::Status PointAt(const fs::path& link, const fs::path& target) {
  std::error_code error;
  const fs::path before = fs::read_symlink(link, error);
  const fs::path temporary = link.string() + ".new";
  fs::remove(temporary, error);
  fs::create_symlink(target.filename(), temporary, error);
  if (error || rename(temporary.c_str(), link.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", link.string(), ": remove it"));
  }
  const std::string own = absl::StrCat(".", link.filename().string(), ".");
  for (const auto& entry : fs::directory_iterator(link.parent_path(), error)) {
    const fs::path name = entry.path().filename();
    // The last one stays: somebody may be reading it.
    if (name.string().rfind(own, 0) == 0 && name != target.filename() && name != before) {
      fs::remove_all(entry.path(), error);
    }
  }
  return absl::OkStatus();
}

bool Add(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  const bool added = extension != nullptr && X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

// Unsigned, with a fresh serial number, times and the name.
Certificate Blank(EVP_PKEY* key, const std::string& name, absl::Duration valid, absl::Time now) {
  Certificate certificate(X509_new());
  X509_set_version(certificate.get(), X509_VERSION_3);
  unsigned char serial[16];
  RAND_bytes(serial, sizeof(serial));
  serial[0] &= 0x7f;
  BIGNUM* number = BN_bin2bn(serial, sizeof(serial), nullptr);
  BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate.get()));
  BN_free(number);
  ASN1_TIME_set(X509_getm_notBefore(certificate.get()), absl::ToTimeT(now - kSkew));
  ASN1_TIME_set(X509_getm_notAfter(certificate.get()), absl::ToTimeT(now + valid));
  X509_set_pubkey(certificate.get(), key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate.get()), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  return certificate;
}

std::string AlternativeName(const std::string& host) {
  unsigned char address[sizeof(in6_addr)];
  const bool is_ip = inet_pton(AF_INET, host.c_str(), address) == 1 ||
                     inet_pton(AF_INET6, host.c_str(), address) == 1;
  return absl::StrCat(is_ip ? "IP:" : "DNS:", host);
}

absl::Status CheckHost(const std::string& host) {
  const bool odd = host.empty() || host.find_first_of(", \t\n/:") != std::string::npos;
  if (!odd || host.find(':') != std::string::npos) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", host, "' is no host name"));
}

struct Authority {
  Certificate certificate;
  Key key;
};

absl::StatusOr<Authority> ReadAuthority(const std::string& folder) {
  Authority authority;
  File certificate(fopen((folder + "/ca.crt").c_str(), "r"));
  File key(fopen((folder + "/ca.key").c_str(), "r"));
  if (certificate != nullptr) {
    authority.certificate.reset(PEM_read_X509(certificate.get(), nullptr, nullptr, nullptr));
  }
  if (key != nullptr) authority.key.reset(PEM_read_PrivateKey(key.get(), nullptr, nullptr, nullptr));
  if (authority.certificate != nullptr && authority.key != nullptr &&
      X509_check_private_key(authority.certificate.get(), authority.key.get()) == 1) {
    return authority;
  }
  return absl::NotFoundError(absl::StrCat(folder, " holds no authority (ca.crt and its ca.key): rein certs init makes one"));
}

std::string ReadAll(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

absl::Status MakeAuthority(const std::string& folder, absl::Duration valid, absl::Time now) {
  if (ReadAuthority(folder).ok()) return absl::OkStatus();
  std::error_code error;
  if (fs::exists(folder + "/ca.crt", error)) return ReadAuthority(folder).status();
  fs::create_directories(folder, error);
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot make ", folder));
  Key key(EVP_EC_gen("P-256"));
  Certificate certificate = Blank(key.get(), "Rein authority", valid, now);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate.get()));
  const bool made = Add(certificate.get(), certificate.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
                    Add(certificate.get(), certificate.get(), NID_key_usage, "critical,keyCertSign,cRLSign") &&
                    Add(certificate.get(), certificate.get(), NID_subject_key_identifier, "hash") &&
                    X509_sign(certificate.get(), key.get(), EVP_sha256()) != 0;
  if (!made) return absl::InternalError("OpenSSL could not make an authority");
  REIN_RETURN_IF_ERROR(Write(folder + "/ca.key", Pem(key.get()), 0600));
  return Write(folder + "/ca.crt", Pem(certificate.get()), 0644);
}

absl::Status MakeCertificate(const std::string& folder, const Subject& subject, absl::Duration valid,
                             absl::Time now) {
  REIN_ASSIGN_OR_RETURN(Authority authority, ReadAuthority(folder));
  std::vector<std::string> names = {"DNS:localhost", "IP:127.0.0.1", "IP:::1", "URI:" + subject.uri};
  for (const std::string& host : subject.hosts) {
    REIN_RETURN_IF_ERROR(CheckHost(host));
    names.push_back(AlternativeName(host));
  }
  Key key(EVP_EC_gen("P-256"));
  Certificate certificate = Blank(key.get(), fs::path(subject.folder).filename().string(), valid, now);
  X509* issuer = authority.certificate.get();
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(issuer));
  const bool made = Add(certificate.get(), issuer, NID_basic_constraints, "critical,CA:FALSE") &&
                    Add(certificate.get(), issuer, NID_key_usage, "critical,digitalSignature") &&
                    Add(certificate.get(), issuer, NID_ext_key_usage, "serverAuth,clientAuth") &&
                    Add(certificate.get(), issuer, NID_authority_key_identifier, "keyid") &&
                    Add(certificate.get(), issuer, NID_subject_alt_name, absl::StrJoin(names, ",")) &&
                    X509_sign(certificate.get(), authority.key.get(), EVP_sha256()) != 0;
  if (!made) return absl::InternalError("OpenSSL could not make a certificate");
  const fs::path out = absl::StrCat(folder, "/", subject.folder);
  // Key and certificate change in one instant: the folder's name is a link to where they are.
  const fs::path real = out.parent_path() / absl::StrCat(".", out.filename().string(), ".", absl::ToUnixNanos(absl::Now()));
  std::error_code error;
  fs::create_directories(real, error);
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot make ", real.string()));
  REIN_RETURN_IF_ERROR(Write(real / "ca.crt", Pem(issuer), 0644));
  REIN_RETURN_IF_ERROR(Write(real / "tls.key", Pem(key.get()), 0600));
  REIN_RETURN_IF_ERROR(Write(real / "tls.crt", Pem(certificate.get()), 0644));
  return PointAt(out, real);
}

absl::Status PrintSecrets(const std::string& folder, std::string& yaml) {
  std::error_code error;
  std::vector<fs::path> roles;
  for (const std::string& place : {folder, folder + "/user"}) {
    for (const auto& entry : fs::directory_iterator(place, error)) {
      const bool hidden = entry.path().filename().string()[0] == '.';
      if (!hidden && fs::exists(entry.path() / "tls.key", error)) roles.push_back(entry.path());
    }
  }
  std::sort(roles.begin(), roles.end());
  if (roles.empty()) return absl::NotFoundError(absl::StrCat(folder, " holds no certificates"));
  for (const fs::path& role : roles) {
    absl::StrAppend(&yaml, "---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata:\n  name: rein-",
                    role.filename().string(), "-tls\ndata:\n");
    for (const char* file : {"ca.crt", "tls.crt", "tls.key"}) {
      absl::StrAppend(&yaml, "  ", file, ": ", absl::Base64Escape(ReadAll(role / file)), "\n");
    }
  }
  return absl::OkStatus();
}

}  // namespace rein::cli
