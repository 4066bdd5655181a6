// Preloaded into a mongod by tests: makes its getaddrinfo ask the DNS server on 127.0.0.1 whose port is in
// PSMDB_AWS_IAM_TEST_DNS_PORT, in place of those of /etc/resolv.conf, which only root could change, and for everybody.
// All else is glibc's: its timeouts (RES_OPTIONS), its retries, /etc/hosts.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <nss.h>
#include <resolv.h>
#include <stdlib.h>

typedef int GetAddrInfo(const char*, const char*, const struct addrinfo*, struct addrinfo**);

int getaddrinfo(const char* node, const char* service, const struct addrinfo* hints, struct addrinfo** result) {
    GetAddrInfo* next;
    // POSIX's way to take a function from dlsym.
    *(void**)&next = dlsym(RTLD_NEXT, "getaddrinfo");
    const char* port = getenv("PSMDB_AWS_IAM_TEST_DNS_PORT");
    // _res belongs to the thread, and glibc keeps what a program writes there.
    if (port != NULL && res_init() == 0) {
        // Whatever /etc/nsswitch.conf has there, as the service of systemd.
        __nss_configure_lookup("hosts", "files dns");
        const struct sockaddr_in server = {
            .sin_family = AF_INET, .sin_port = htons((in_port_t)atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        _res.nscount = 1;
        _res.nsaddr_list[0] = server;
    }
    return next(node, service, hints, result);
}
