// The same request to STS with libcurl, as a plugin without its own HTTP client would send it.
//
//   libcurl kept|new HOST PORT CA_FILE            rounds, one request after another
//   libcurl storm HOST PORT CA_FILE CONNECTIONS   one round, by this many threads, each with its own handle
//
// kept: one handle sends all requests over one connection. new: a new handle and connection for each request. Standard
// input contains rounds: a line with the number of requests, and one line per request with Authorization, X-Amz-Date
// and nonce, separated by tabs. The first request of a round is not measured, because it may open a connection. A storm
// reports the number of responses with status 200, and of others.
#include <curl/curl.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "client.h"

namespace {

using client::die;

constexpr char kBody[] = "Action=GetCallerIdentity&Version=2011-06-15";

struct Request {
    std::string authorization;
    std::string date;
    std::string nonce;
};

struct Target {
    std::string url;
    std::string connectTo;
    std::string caFile;
};

size_t append(char* data, size_t size, size_t count, void* to) {
    static_cast<std::string*>(to)->append(data, size * count);
    return size * count;
}

// Holds a request's headers.
class Headers {
public:
    explicit Headers(const Request& request) {
        add("Accept: text/xml");
        add("Content-Type: application/x-www-form-urlencoded");
        add("X-Amz-Date: " + request.date);
        add("X-MongoDB-Server-Nonce: " + request.nonce);
        add("X-MongoDB-GS2-CB-Flag: n");
        add("Authorization: " + request.authorization);
    }
    Headers(const Headers&) = delete;
    Headers& operator=(const Headers&) = delete;
    ~Headers() { curl_slist_free_all(_list); }
    curl_slist* list() const { return _list; }

private:
    void add(const std::string& line) { _list = curl_slist_append(_list, line.c_str()); }

    curl_slist* _list = nullptr;
};

// A handle with everything that all requests have in common.
class Handle {
public:
    explicit Handle(const Target& target) : _curl(curl_easy_init()), _connectTo(nullptr) {
        if (_curl == nullptr) {
            die("cannot create a handle");
        }
        _connectTo = curl_slist_append(nullptr, target.connectTo.c_str());
        set(CURLOPT_URL, target.url.c_str());
        set(CURLOPT_CONNECT_TO, _connectTo);
        set(CURLOPT_CAINFO, target.caFile.c_str());
        set(CURLOPT_SSL_VERIFYPEER, 1L);
        set(CURLOPT_SSL_VERIFYHOST, 2L);
        set(CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
        set(CURLOPT_NOSIGNAL, 1L);
        set(CURLOPT_PROXY, "");
        set(CURLOPT_TIMEOUT_MS, 10'000L);
        set(CURLOPT_POSTFIELDS, kBody);
        set(CURLOPT_POSTFIELDSIZE, static_cast<long>(sizeof kBody - 1));
        set(CURLOPT_WRITEFUNCTION, append);
        set(CURLOPT_WRITEDATA, &_response);
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() {
        curl_easy_cleanup(_curl);
        curl_slist_free_all(_connectTo);
    }

    // Sends the request; returns whether STS confirmed the caller.
    bool send(const Request& request) {
        const Headers headers(request);
        set(CURLOPT_HTTPHEADER, headers.list());
        _response.clear();
        if (curl_easy_perform(_curl) != CURLE_OK) {
            return false;
        }
        long status = 0;
        curl_easy_getinfo(_curl, CURLINFO_RESPONSE_CODE, &status);
        return status == 200 && _response.find("<Arn>") != std::string::npos;
    }

private:
    template <typename Value>
    void set(CURLoption option, Value value) {
        if (curl_easy_setopt(_curl, option, value) != CURLE_OK) {
            die("cannot set an option");
        }
    }

    CURL* _curl;
    curl_slist* _connectTo;
    std::string _response;
};

std::vector<Request> readRequests() {
    const size_t count = std::stoul(client::readLine());
    std::vector<Request> requests;
    for (size_t i = 0; i < count; ++i) {
        const std::string line = client::readLine();
        const size_t first = line.find('\t');
        const size_t second = line.find('\t', first + 1);
        requests.push_back(
            {line.substr(0, first), line.substr(first + 1, second - first - 1), line.substr(second + 1)});
    }
    return requests;
}

// Sends one request after another.
template <typename Send>
void round(const Send& send) {
    const std::vector<Request> requests = readRequests();
    std::vector<int64_t> times;
    client::Cpu cpu;
    client::Cpu begunCpu;
    for (size_t i = 0; i < requests.size(); ++i) {
        if (i == 1) {
            begunCpu = client::Cpu::now();
        }
        const int64_t begun = client::wallTime();
        if (!send(requests[i])) {
            die("not confirmed");
        }
        if (i > 0) {
            times.push_back(client::wallTime() - begun);
        }
    }
    cpu.addSince(begunCpu);
    client::report(times, cpu);
}

void storm(const Target& target, size_t connections) {
    const std::vector<Request> requests = readRequests();
    std::atomic<size_t> confirmed{0};
    std::vector<std::thread> threads;
    const int64_t begun = client::wallTime();
    for (size_t i = 0; i < connections; ++i) {
        threads.emplace_back([&, i] {
            Handle handle(target);
            for (size_t next = i; next < requests.size(); next += connections) {
                confirmed += handle.send(requests[next]) ? 1 : 0;
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    std::cout << client::wallTime() - begun << " " << confirmed << " " << requests.size() - confirmed << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 5) {
        die("usage: libcurl kept|new|storm HOST PORT CA_FILE [CONNECTIONS]");
    }
    const std::string mode = argv[1];
    const std::string host = argv[2];
    const Target target{"https://" + host + "/", host + ":443:127.0.0.1:" + argv[3], argv[4]};
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        die("cannot initialise libcurl");
    }
    if (mode == "storm") {
        storm(target, std::stoul(argv[5]));
    } else if (mode == "kept") {
        Handle handle(target);
        for (;;) {
            round([&](const Request& request) { return handle.send(request); });
        }
    } else {
        for (;;) {
            round([&](const Request& request) { return Handle(target).send(request); });
        }
    }
}
