/*
 * The test guest's init, and all that runs in it: fills memory with pages that can each be checked, keeps
 * writing to a working set, keeps checking all of it, ticks on the serial port and answers on the network.
 *
 * Kernel command line (all optional):
 *   mem_mb=64        memory under test           text_pct=75 zero_pct=0   kinds of page; the rest is random
 *   ws_mb=8          working set                 dirty_mbps=4             write rate, 10^6 bytes/s of whole pages
 *   check_mbps=64    checker's rate, 0 = no limit
 *   zero_every=16    every n-th write of a page makes it all zeros, 0 = never
 *   net=eth0:10.0.0.2/24   net6=eth0:fd00::2/64  addresses (may be repeated)
 *   silent           sends nothing by itself (IPv6 is off)
 *   disk=/dev/vda    writes its first 8 MiB, block by block, and reads them again; CHECK reads all of them
 *
 * Serial port, out:
 *   READY boot=<id> pages=<n> cpus=<n> uptime=<s>
 *   TICK <n> <uptime> bad=<n> checked=<n> passes=<n> writes=<n> boot=<id>        every 100 ms
 *   BAD page=<n> why=<word> found=<n> expected=<n>                               the first 20
 *   CHECKED id=<id> pages=<n> bad=<n> gen=<sum> writes=<sum> boot=<id>
 * Serial port, in: "CHECK <id>", "DIRTY <mbps> <ws_mb>", "POWEROFF".
 *
 * A page: magic, number, generation, four sums, body. A write raises the generation and renews the quarter
 * (generation mod 4) of the body, so that a page is never wholly rewritten and never wholly the same. The
 * content follows from (number, generation), and the sums are seeded with both: a page that is stale, swapped
 * or put together from two versions is found. The generation is also kept in a shadow table, as a sequence
 * lock (odd while the page is being written), and the sum of all generations by the writers themselves.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "words.h"

typedef uint64_t u64;
typedef uint8_t u8;

enum { PAGE = 4096, QUARTER = 1024, HEADER = 64, POOL = 1 << 20, MAX_CPUS = 64, MAX_BAD_LINES = 20 };
static const u64 MAGIC = 0x7966657272796d76ull;

struct page {
    u64 magic, index, gen, sum[4], pad;
    u8 body[PAGE - HEADER];
};
_Static_assert(sizeof(struct page) == PAGE, "a page is a page");

static struct page *memory;
static _Atomic u64 *shadow; /* generation * 2, plus 1 while the page is being written */
static u64 page_count;
static u8 *pool;
static int cpus, tty;
static char boot_id[17];

static int text_pct = 75, zero_pct = 0, zero_every = 16;
static _Atomic u64 working_set, dirty_rate, check_rate; /* pages, bytes/s, bytes/s */
static _Atomic u64 bad, checked, passes;
static _Atomic int bad_lines;
static struct { _Atomic u64 count; char pad[56]; } writes[MAX_CPUS];
static pthread_rwlock_t writing = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t printing = PTHREAD_MUTEX_INITIALIZER;

/* ---------------------------------------------------------------- small things */

static void say(const char *format, ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    if (length > (int)sizeof line - 2) length = sizeof line - 2;
    line[length++] = '\n';
    pthread_mutex_lock(&printing);
    for (int done = 0; done < length;) {
        ssize_t n = write(tty, line + done, length - done);
        if (n < 0 && errno != EINTR) break;
        if (n > 0) done += n;
    }
    pthread_mutex_unlock(&printing);
}

static u64 mix(u64 x) { /* splitmix64 */
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static u64 next(u64 *state) { /* xorshift64 */
    u64 x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

static u64 now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void sleep_until(u64 ns) {
    struct timespec t = {.tv_sec = ns / 1000000000ull, .tv_nsec = ns % 1000000000ull};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {}
}

static void put_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (write(fd, text, strlen(text)) < 0) say("NOTE cannot write %s: %s", path, strerror(errno));
    close(fd);
}

static void start(void *(*body)(void *), void *arg, int cpu, int realtime) {
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 256 << 10);
    if (realtime) {
        struct sched_param param = {.sched_priority = 10};
        pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
        pthread_attr_setschedpolicy(&attr, SCHED_RR);
        pthread_attr_setschedparam(&attr, &param);
    }
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu % cpus, &set);
        pthread_attr_setaffinity_np(&attr, sizeof set, &set);
    }
    int error = pthread_create(&thread, &attr, body, arg);
    if (error) say("FATAL thread: %s", strerror(error));
    pthread_attr_destroy(&attr);
}

/* ---------------------------------------------------------------- pages */

/* Rank drawn by Zipf's law from n. */
static int draw(u64 *state, const u64 *weight, int n) {
    u64 want = next(state) % weight[n - 1];
    int low = 0, high = n - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (weight[middle] > want) high = middle;
        else low = middle + 1;
    }
    return low;
}

/*
 * Text as prose and logs are: words by frequency, in phrases that come back, on a topic that changes every few
 * kilobytes. LZ4 makes about 2.0 of it page by page and 3.0 in 256 KiB blocks.
 */
static void make_pool(void) {
    enum { WORDS = sizeof words / sizeof *words, PHRASES = 512, TOPIC = 24, TOPIC_BYTES = 6144 };
    static u64 weight[PHRASES];
    static char phrase[PHRASES][96];
    int topic[TOPIC] = {0};
    u64 total = 0, state = 88172645463325252ull;
    for (int i = 0; i < PHRASES; i++) weight[i] = total += 1000000 / (i + 4);
    for (int i = 0; i < PHRASES; i++) {
        int length = 0;
        for (u64 n = 2 + next(&state) % 5; n; n--)
            length += sprintf(phrase[i] + length, n > 1 ? "%s " : "%s", words[draw(&state, weight, WORDS)]);
    }
    pool = malloc(POOL + 256);
    for (size_t at = 0, column = 0, topic_end = 0; at < POOL;) {
        if (at >= topic_end) {
            for (int i = 0; i < TOPIC; i++) topic[i] = next(&state) % PHRASES;
            topic_end = at + TOPIC_BYTES;
        }
        u64 r = next(&state) >> 20;
        const char *piece = r % 8 < 5 ? phrase[topic[draw(&state, weight, TOPIC)]] : words[draw(&state, weight, WORDS)];
        size_t length = strlen(piece);
        memcpy(pool + at, piece, length);
        at += length;
        column += length + 1;
        r >>= 8;
        if (r % 29 == 0) at += sprintf((char *)pool + at, " %u", (unsigned)(r >> 8) % 100000);
        if (r % 11 == 0) pool[at++] = ',';
        if (r % 17 == 0) pool[at++] = '.';
        pool[at++] = column > 90 ? '\n' : ' ';
        if (column > 90) column = 0;
    }
}

/* The generation in which quarter q of a page of this generation was last renewed. */
static u64 quarter_gen(u64 gen, u64 q) { return gen < q ? 0 : gen - ((gen - q) & 3); }

static int all_zero(u64 index, u64 gen) {
    if (gen == 0) return (int)(mix(index) % 100) >= 100 - zero_pct;
    return zero_every && (gen + index) % zero_every == 0;
}

static int is_text(u64 index) { return (int)(mix(index ^ 0x5bd1e995) % 100) < text_pct; }

static u8 *quarter_start(struct page *p, u64 q) { return q ? (u8 *)p + q * QUARTER : p->body; }
static size_t quarter_words(u64 q) { return (q ? QUARTER : QUARTER - HEADER) / 8; }

static u64 quarter_sum(struct page *p, u64 index, u64 gen, u64 q) {
    const u64 *at = (const u64 *)quarter_start(p, q);
    u64 a = mix(index * 4 + q), b = mix(gen);
    for (size_t i = quarter_words(q); i; i -= 2, at += 2) {
        a = (a ^ at[0]) * 0x9fb21c651e98df25ull;
        b = (b ^ at[1]) * 0xa24baed4963ee407ull;
        a ^= a >> 29;
        b ^= b >> 31;
    }
    return mix(a) ^ b;
}

static void make_quarter(struct page *p, u64 index, u64 gen, u64 q) {
    u8 *at = quarter_start(p, q);
    u64 state = mix(index * 0x100000001b3ull ^ mix(gen * 4 + q)) | 1;
    if (is_text(index)) {
        memcpy(at, pool + (state >> 11) % (POOL - QUARTER), quarter_words(q) * 8);
    } else {
        for (size_t i = quarter_words(q); i; i--, at += 8) {
            u64 word = next(&state);
            memcpy(at, &word, 8);
        }
    }
    p->sum[q] = quarter_sum(p, index, gen, q);
}

/* Brings a page to the generation, from the one before it. */
static void make_page(u64 index, u64 gen) {
    struct page *p = memory + index;
    if (all_zero(index, gen)) {
        if (gen) memset(p, 0, PAGE); /* at generation 0 it was never touched */
        return;
    }
    int fresh = gen == 0 || all_zero(index, gen - 1);
    p->magic = MAGIC;
    p->index = index;
    p->gen = gen;
    for (u64 q = 0; q < 4; q++)
        if (fresh || gen % 4 == q) make_quarter(p, index, quarter_gen(gen, q), q);
}

struct fault { const char *why; u64 found, expected; };

static int page_fault(u64 index, u64 gen, struct fault *f) {
    struct page *p = memory + index;
    if (all_zero(index, gen)) {
        const u64 *at = (const u64 *)p;
        for (int i = 0; i < PAGE / 8; i++)
            if (at[i]) return *f = (struct fault){"not-zero", p->gen, gen}, 1;
        return 0;
    }
    if (p->magic != MAGIC) return *f = (struct fault){"magic", p->magic, MAGIC}, 1;
    if (p->index != index) return *f = (struct fault){"number", p->index, index}, 1;
    if (p->gen != gen) return *f = (struct fault){"generation", p->gen, gen}, 1;
    for (u64 q = 0; q < 4; q++)
        if (p->sum[q] != quarter_sum(p, index, quarter_gen(gen, q), q))
            return *f = (struct fault){"content", q, gen}, 1;
    return 0;
}

/* 1 if the page is bad; waits for a write in progress. */
static int check_page(u64 index) {
    for (;;) {
        u64 before = atomic_load_explicit(&shadow[index], memory_order_acquire);
        if (before & 1) {
            sched_yield();
            continue;
        }
        struct fault f;
        int wrong = page_fault(index, before / 2, &f);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&shadow[index], memory_order_relaxed) != before) continue;
        if (wrong && atomic_fetch_add(&bad_lines, 1) < MAX_BAD_LINES)
            say("BAD page=%llu why=%s found=%llu expected=%llu", (unsigned long long)index, f.why,
                (unsigned long long)f.found, (unsigned long long)f.expected);
        return wrong;
    }
}

static void write_page(u64 index) {
    u64 gen = atomic_load_explicit(&shadow[index], memory_order_relaxed) / 2 + 1;
    atomic_store_explicit(&shadow[index], gen * 2 - 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    make_page(index, gen);
    atomic_store_explicit(&shadow[index], gen * 2, memory_order_release);
}

/* ---------------------------------------------------------------- threads */

static _Atomic int filling;

static void *filler(void *arg) {
    for (u64 i = (uintptr_t)arg; i < page_count; i += cpus) make_page(i, 0);
    atomic_fetch_sub(&filling, 1);
    return NULL;
}

/* Writer k of n owns the pages k, k + n, … of the working set. */
static void *writer(void *arg) {
    enum { PERIOD_MS = 5 };
    u64 k = (uintptr_t)arg, state = mix(k + 77) | 1, due = now_ns();
    double owed = 0;
    for (;;) {
        due += PERIOD_MS * 1000000ull;
        sleep_until(due);
        u64 now = now_ns();
        if (now > due + 100000000ull) due = now; /* late: don't catch up in one burst */
        owed += (double)atomic_load(&dirty_rate) * PERIOD_MS / 1000 / PAGE / cpus;
        u64 own = (atomic_load(&working_set) + cpus - 1 - k) / cpus;
        pthread_rwlock_rdlock(&writing);
        for (; owed >= 1; owed -= 1) {
            if (!own) continue;
            write_page(k + (next(&state) >> 11) % own * cpus);
            atomic_fetch_add_explicit(&writes[k].count, 1, memory_order_relaxed);
        }
        pthread_rwlock_unlock(&writing);
    }
    return NULL;
}

static void *checker(void *arg) {
    u64 k = (uintptr_t)arg, since = now_ns(), bytes = 0;
    for (;;) {
        u64 n = 0;
        for (u64 i = k; i < page_count; i += cpus) {
            if (check_page(i)) atomic_fetch_add(&bad, 1);
            if (++n % 16) continue;
            atomic_fetch_add_explicit(&checked, 16, memory_order_relaxed);
            u64 rate = atomic_load(&check_rate) / cpus;
            bytes += 16 * PAGE;
            if (!rate) continue;
            u64 due = since + (u64)((double)bytes * 1e9 / rate), now = now_ns();
            if (due > now) sleep_until(due);
            if (now > due + 100000000ull) since = now, bytes = 0;
        }
        if (k == 0) atomic_fetch_add(&passes, 1);
    }
    return NULL;
}

static u64 all_writes(void) {
    u64 sum = 0;
    for (int k = 0; k < cpus; k++) sum += atomic_load(&writes[k].count);
    return sum;
}

static void *ticker(void *arg) {
    (void)arg;
    u64 due = now_ns();
    for (u64 n = 0;; n++) {
        u64 now = now_ns();
        say("TICK %llu %llu.%03llu bad=%llu checked=%llu passes=%llu writes=%llu boot=%s", (unsigned long long)n,
            (unsigned long long)(now / 1000000000), (unsigned long long)(now / 1000000 % 1000),
            (unsigned long long)atomic_load(&bad), (unsigned long long)atomic_load(&checked),
            (unsigned long long)atomic_load(&passes), (unsigned long long)all_writes(), boot_id);
        due += 100000000ull;
        if (now > due + 1000000000ull) due = now;
        sleep_until(due);
    }
    return NULL;
}

/* The disk: each block holds its number and its generation, in all of its words. */
enum { DISK_BLOCKS = 2048 };
static int disk = -1;
static u64 disk_generation[DISK_BLOCKS];
static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER;

static u64 disk_word(u64 block) { return mix(block << 32 | disk_generation[block]); }

static int check_block(u64 block, u64 *room) {
    if (!disk_generation[block]) return 0;
    if (pread(disk, room, PAGE, block * PAGE) != PAGE) {
        say("BAD disk block=%llu: %s", (unsigned long long)block, strerror(errno));
        return 1;
    }
    for (size_t i = 0; i < PAGE / 8; i++)
        if (room[i] != disk_word(block)) {
            say("BAD disk block=%llu generation=%llu", (unsigned long long)block,
                (unsigned long long)disk_generation[block]);
            return 1;
        }
    return 0;
}

static void *disk_writer(void *arg) {
    (void)arg;
    u64 state = 88172645463325252ull, *room;
    if (posix_memalign((void **)&room, PAGE, PAGE)) say("FATAL disk: no memory");
    for (;;) {
        pthread_mutex_lock(&disk_lock);
        u64 block = next(&state) % DISK_BLOCKS;
        atomic_fetch_add(&bad, (u64)check_block(block, room));
        disk_generation[block]++;
        for (size_t i = 0; i < PAGE / 8; i++) room[i] = disk_word(block);
        if (pwrite(disk, room, PAGE, block * PAGE) != PAGE) say("BAD disk write: %s", strerror(errno));
        pthread_mutex_unlock(&disk_lock);
        sleep_until(now_ns() + 5000000);
    }
    return NULL;
}

static u64 check_disk(void) {
    u64 wrong = 0, *room;
    if (disk < 0 || posix_memalign((void **)&room, PAGE, PAGE)) return 0;
    pthread_mutex_lock(&disk_lock);
    for (u64 block = 0; block < DISK_BLOCKS; block++) wrong += (u64)check_block(block, room);
    pthread_mutex_unlock(&disk_lock);
    free(room);
    return wrong;
}

static void check_all(const char *id) {
    u64 wrong_blocks = check_disk();
    pthread_rwlock_wrlock(&writing);
    u64 wrong = wrong_blocks, sum = 0;
    for (u64 i = 0; i < page_count; i++) {
        wrong += check_page(i);
        sum += atomic_load(&shadow[i]) / 2;
    }
    u64 written = all_writes();
    pthread_rwlock_unlock(&writing);
    if (sum != written) wrong++; /* shadow and page stale alike: the writers' own count tells */
    atomic_fetch_add(&bad, wrong);
    say("CHECKED id=%s pages=%llu bad=%llu gen=%llu writes=%llu boot=%s", id, (unsigned long long)page_count,
        (unsigned long long)atomic_load(&bad), (unsigned long long)sum, (unsigned long long)written, boot_id);
}

static void command(char *line) {
    char id[64] = "-";
    unsigned long long rate, ws;
    if (!strncmp(line, "CHECK", 5)) {
        sscanf(line, "CHECK %63s", id);
        check_all(id);
    } else if (sscanf(line, "DIRTY %llu %llu", &rate, &ws) == 2) {
        u64 pages = ws * 256 > page_count ? page_count : ws * 256;
        atomic_store(&dirty_rate, rate * 1000000ull);
        atomic_store(&working_set, pages);
        say("DIRTY %llu %llu", rate, (unsigned long long)pages / 256);
    } else if (!strcmp(line, "POWEROFF")) {
        reboot(LINUX_REBOOT_CMD_POWER_OFF);
    } else {
        say("NOTE unknown command: %s", line);
    }
}

/* ---------------------------------------------------------------- network */

static void *serve_tcp(void *arg) {
    int fd = (int)(intptr_t)arg;
    char in[4096], out[8192];
    size_t held = 0;
    u64 counter = 0;
    for (;;) {
        ssize_t n = read(fd, in + held, sizeof in - held);
        if (n <= 0) break;
        held += n;
        size_t from = 0, length = 0;
        for (size_t i = 0; i < held; i++) {
            if (in[i] != '\n') continue;
            if (length + (i - from) + 32 > sizeof out) {
                if (write(fd, out, length) < 0) break;
                length = 0;
            }
            memcpy(out + length, in + from, i - from);
            length += i - from;
            length += sprintf(out + length, " %llu\n", (unsigned long long)++counter);
            from = i + 1;
        }
        if (length && write(fd, out, length) < 0) break;
        if (from == 0 && held == sizeof in) break; /* a line longer than the buffer */
        memmove(in, in + from, held -= from);
    }
    close(fd);
    return NULL;
}

static void *tcp_echo(void *arg) {
    int server = (int)(intptr_t)arg, one = 1;
    for (;;) {
        int fd = accept4(server, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        start(serve_tcp, (void *)(intptr_t)fd, -1, 1);
    }
    return NULL;
}

static void *udp_echo(void *arg) {
    int fd = (int)(intptr_t)arg;
    char buffer[2048];
    u64 counter = 0;
    for (;;) {
        struct sockaddr_in6 from;
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(fd, buffer, sizeof buffer - 32, 0, (struct sockaddr *)&from, &size);
        if (n < 0) continue;
        n += sprintf(buffer + n, " %llu", (unsigned long long)++counter);
        sendto(fd, buffer, n, 0, (struct sockaddr *)&from, size);
    }
    return NULL;
}

static int echo_socket(int type) {
    int one = 1, fd = socket(AF_INET6, type | SOCK_CLOEXEC, 0);
    struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_port = htons(7), .sin6_addr = in6addr_any};
    struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(7)};
    int ok = 0;
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        ok = bind(fd, (struct sockaddr *)&any6, sizeof any6) == 0;
        if (!ok) close(fd);
    }
    if (!ok) {
        fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        ok = bind(fd, (struct sockaddr *)&any4, sizeof any4) == 0;
    }
    if (!ok || (type == SOCK_STREAM && listen(fd, 16) < 0)) {
        say("FATAL echo: %s", strerror(errno));
        return -1;
    }
    return fd;
}

/* "eth0:10.0.0.2/24" */
static void configure(const char *spec, int family) {
    char name[IFNAMSIZ], address[64];
    int prefix = 0;
    if (sscanf(spec, "%15[^:]:%63[^/]/%d", name, address, &prefix) != 3) {
        say("FATAL bad address %s", spec);
        return;
    }
    for (int i = 0; !if_nametoindex(name) && i < 200; i++) sleep_until(now_ns() + 10000000);
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {0};
    snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    int failed = ioctl(fd, SIOCGIFFLAGS, &request) < 0;
    request.ifr_flags |= IFF_UP;
    failed |= ioctl(fd, SIOCSIFFLAGS, &request) < 0;
    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
        memset(&request.ifr_addr, 0, sizeof request.ifr_addr);
        in->sin_family = AF_INET;
        inet_pton(AF_INET, address, &in->sin_addr);
        failed |= ioctl(fd, SIOCSIFADDR, &request) < 0;
        in->sin_addr.s_addr = htonl(prefix ? ~0u << (32 - prefix) : 0);
        failed |= ioctl(fd, SIOCSIFNETMASK, &request) < 0;
    } else {
        struct { struct in6_addr address; uint32_t prefix; int index; } six = {.prefix = prefix};
        inet_pton(AF_INET6, address, &six.address);
        six.index = if_nametoindex(name);
        failed |= ioctl(fd, SIOCSIFADDR, &six) < 0;
    }
    if (failed) say("FATAL %s: %s", spec, strerror(errno));
    close(fd);
}

/* ---------------------------------------------------------------- boot */

static void load_modules(void) {
    FILE *list = fopen("/modules/list", "r");
    char name[128], path[160];
    if (!list) return;
    while (fscanf(list, "%127s", name) == 1) {
        snprintf(path, sizeof path, "/modules/%s", name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
            say("FATAL module %s: %s", name, strerror(errno));
        close(fd);
    }
    fclose(list);
}

static void open_tty(void) {
    tty = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (tty < 0) return;
    struct termios raw;
    tcgetattr(tty, &raw);
    cfmakeraw(&raw);
    raw.c_cflag |= CLOCAL | CREAD;
    cfsetspeed(&raw, B115200);
    tcsetattr(tty, TCSANOW, &raw);
}

static void make_boot_id(void) {
    char kernel[64] = "";
    u64 id = 1469598103934665603ull;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = read(fd, kernel, sizeof kernel - 1);
        for (ssize_t i = 0; i < n; i++) id = (id ^ (u8)kernel[i]) * 1099511628211ull;
        close(fd);
    }
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    snprintf(boot_id, sizeof boot_id, "%016llx",
             (unsigned long long)mix(id ^ mix(t.tv_sec * 1000000000ull + t.tv_nsec) ^ __builtin_ia32_rdtsc()));
}

int main(void) {
    static char cmdline[4096];
    u64 mem_mb = 64, ws_mb = 8, dirty = 4, check = 64;
    int silent = 0, networked = 0;

    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    open_tty();
    make_boot_id();
    cpus = sysconf(_SC_NPROCESSORS_ONLN);
    if (cpus > MAX_CPUS) cpus = MAX_CPUS;
    load_modules();

    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t got = read(fd, cmdline, sizeof cmdline - 1);
    close(fd);
    if (got < 0) say("FATAL cmdline: %s", strerror(errno));
    char *words_of[128], *save = NULL;
    int count = 0;
    for (char *w = strtok_r(cmdline, " \n", &save); w && count < 128; w = strtok_r(NULL, " \n", &save)) {
        words_of[count++] = w;
        unsigned long long v;
        if (sscanf(w, "mem_mb=%llu", &v) == 1) mem_mb = v;
        if (sscanf(w, "ws_mb=%llu", &v) == 1) ws_mb = v;
        if (sscanf(w, "dirty_mbps=%llu", &v) == 1) dirty = v;
        if (sscanf(w, "check_mbps=%llu", &v) == 1) check = v;
        if (sscanf(w, "text_pct=%llu", &v) == 1) text_pct = v;
        if (sscanf(w, "zero_pct=%llu", &v) == 1) zero_pct = v;
        if (sscanf(w, "zero_every=%llu", &v) == 1) zero_every = v;
        if (!strcmp(w, "silent")) silent = 1;
        if (!strncmp(w, "disk=", 5)) {
            disk = open(w + 5, O_RDWR | O_DIRECT | O_CLOEXEC);
            if (disk < 0) say("FATAL disk: %s", strerror(errno));
        }
    }
    if (silent) {
        put_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        put_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    }
    for (int i = 0; i < count; i++) {
        if (!strncmp(words_of[i], "net=", 4)) configure(words_of[i] + 4, AF_INET), networked = 1;
        if (!strncmp(words_of[i], "net6=", 5)) configure(words_of[i] + 5, AF_INET6), networked = 1;
    }
    if (networked) configure("lo:127.0.0.1/8", AF_INET);

    page_count = mem_mb * 256;
    working_set = ws_mb * 256 > page_count ? page_count : ws_mb * 256;
    dirty_rate = dirty * 1000000ull;
    check_rate = check * 1000000ull;
    memory = mmap(NULL, page_count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    shadow = mmap(NULL, page_count * 8 + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || shadow == MAP_FAILED) say("FATAL memory: %s", strerror(errno));
    make_pool();
    filling = cpus;
    for (long i = 0; i < cpus; i++) start(filler, (void *)i, i, 0);
    while (atomic_load(&filling)) sleep_until(now_ns() + 5000000);

    if (networked) {
        start(tcp_echo, (void *)(intptr_t)echo_socket(SOCK_STREAM), -1, 1);
        start(udp_echo, (void *)(intptr_t)echo_socket(SOCK_DGRAM), -1, 1);
    }
    u64 now = now_ns();
    say("READY boot=%s pages=%llu cpus=%d uptime=%llu.%03llu", boot_id, (unsigned long long)page_count, cpus,
        (unsigned long long)(now / 1000000000), (unsigned long long)(now / 1000000 % 1000));
    for (long i = 0; i < cpus; i++) {
        start(writer, (void *)i, i, 0);
        start(checker, (void *)i, i, 0);
    }
    if (disk >= 0) start(disk_writer, NULL, -1, 0);
    start(ticker, NULL, -1, 1);

    char line[256];
    size_t length = 0;
    for (;;) {
        char c;
        ssize_t n = read(tty, &c, 1);
        if (n <= 0) {
            if (n < 0 && errno != EINTR && errno != EAGAIN) sleep_until(now_ns() + 100000000);
            continue;
        }
        if (c == '\n' || c == '\r') {
            line[length] = 0;
            if (length) command(line);
            length = 0;
        } else if (length < sizeof line - 1) {
            line[length++] = c;
        }
    }
}
