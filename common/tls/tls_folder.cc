#include "common/tls/tls_folder.h"

#include <cstdio>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>

#include "common/status/status_macros.h"

namespace rein::tls {
namespace {

template <typename T, void (*Free)(T*)>
struct Freer {
  void operator()(T* object) const { Free(object); }
};
using File = std::unique_ptr<FILE, decltype([](FILE* file) { fclose(file); })>;
using Certificate = std::unique_ptr<X509, Freer<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY, EVP_PKEY_free>>;
using Authorities = std::unique_ptr<X509_STORE, Freer<X509_STORE, X509_STORE_free>>;
using Verification = std::unique_ptr<X509_STORE_CTX, Freer<X509_STORE_CTX, X509_STORE_CTX_free>>;
using Chain = std::unique_ptr<STACK_OF(X509), decltype([](STACK_OF(X509) * chain) {
                                sk_X509_pop_free(chain, X509_free);
                              })>;

absl::StatusOr<File> Open(const std::string& path) {
  File file(fopen(path.c_str(), "r"));
  if (file == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  return file;
}

// The certificates of a PEM file in their order; at least one.
absl::StatusOr<std::vector<Certificate>> ReadCertificates(const std::string& path) {
  REIN_ASSIGN_OR_RETURN(File file, Open(path));
  std::vector<Certificate> certificates;
  while (X509* one = PEM_read_X509(file.get(), nullptr, nullptr, nullptr)) {
    certificates.emplace_back(one);
  }
  ERR_clear_error();
  if (certificates.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " holds no PEM certificate"));
  }
  return certificates;
}

}  // namespace

absl::StatusOr<TlsFolder> OpenTlsFolder(const std::string& folder) {
  TlsFolder tls{.authority = folder + "/ca.crt",
                .certificate = folder + "/tls.crt",
                .key = folder + "/tls.key"};
  REIN_ASSIGN_OR_RETURN(auto authorities, ReadCertificates(tls.authority));
  REIN_ASSIGN_OR_RETURN(auto certificates, ReadCertificates(tls.certificate));
  REIN_ASSIGN_OR_RETURN(File file, Open(tls.key));
  Key key(PEM_read_PrivateKey(file.get(), nullptr, nullptr, nullptr));
  X509* own = certificates.front().get();
  if (key == nullptr || X509_check_private_key(own, key.get()) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(
        absl::StrCat(tls.key, " is no PEM key of the certificate in ", tls.certificate));
  }
  Authorities store(X509_STORE_new());
  for (const Certificate& authority : authorities) X509_STORE_add_cert(store.get(), authority.get());
  Chain chain(sk_X509_new_null());
  for (size_t i = 1; i < certificates.size(); ++i) {
    sk_X509_push(chain.get(), certificates[i].release());
  }
  Verification verification(X509_STORE_CTX_new());
  X509_STORE_CTX_init(verification.get(), store.get(), own, chain.get());
  if (X509_verify_cert(verification.get()) != 1) {
    const int error = X509_STORE_CTX_get_error(verification.get());
    ERR_clear_error();
    return absl::InvalidArgumentError(absl::StrCat(
        tls.certificate, " is not valid under ", tls.authority, ": ",
        X509_verify_cert_error_string(error), "; rein certs init makes new ones"));
  }
  return tls;
}

bool IsLoopback(const std::string& address) {
  const std::string host = address.substr(0, address.rfind(':'));
  return absl::StartsWith(host, "127.") || host == "localhost" || host == "[::1]" || host == "::1" ||
         absl::StartsWith(address, "unix:");
}

absl::Status CheckReach(const std::string& flag, const std::string& address, bool has_tls) {
  if (has_tls || IsLoopback(address)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " ", address, " would be open to other machines, unencrypted and for everybody: "
                   "give --tls FOLDER (rein certs init makes one), or listen on 127.0.0.1"));
}

}  // namespace rein::tls
