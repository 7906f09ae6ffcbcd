/* Stands between a program and the C library (LD_PRELOAD) and sees every change that the program makes below one directory.
 * By what the environment says, it writes the changes down, kills the process before one of them, makes them fail, or
 * moves the wall clock.
 *
 *   SHIM_ROOT   the directory; changes elsewhere are none of its business
 *   SHIM_LOG    a file that is told every change, in order
 *   SHIM_KILL   N: the process dies by SIGKILL before change N; a write is done by half first
 *   SHIM_FAIL   N:ERRNO:COUNT  changes N to N + COUNT - 1 fail
 *   SHIM_CLOCK  N:SECONDS  from change N on, the wall clock is off by so much
 *
 * A line of the log is `OP INODE [NUMBERS] PATH`; that of a write is followed by its bytes and a line end. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_len;
static int log_fd = -1;
static long kill_at = -1, fail_at = -1, fail_errno, fail_count, clock_at = -1, clock_by;
static long changes;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("SHIM_ROOT");
    if (!text) return;
    snprintf(root, sizeof root, "%s", text);
    root_len = strlen(root);
    if ((text = getenv("SHIM_KILL"))) kill_at = atol(text);
    if ((text = getenv("SHIM_FAIL"))) sscanf(text, "%ld:%ld:%ld", &fail_at, &fail_errno, &fail_count);
    if ((text = getenv("SHIM_CLOCK"))) sscanf(text, "%ld:%ld", &clock_at, &clock_by);
    if ((text = getenv("SHIM_LOG"))) {
        /* A number that nobody takes for their own. */
        int fd = REAL(open)(text, O_WRONLY | O_CREAT | O_APPEND, 0644);
        log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 900);
        REAL(close)(fd);
    }
}

/* Whether an absolute path is below the root. */
static int inside(const char *path) {
    return root_len && !strncmp(path, root, root_len) && (path[root_len] == '/' || !path[root_len]);
}

/* The absolute path of `path` as seen from the directory `at`. */
static int absolute(int at, const char *path, char *out) {
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return 1;
    }
    char link[64], base[PATH_MAX];
    if (at == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t n = readlink(link, base, sizeof base - 1);
    if (n < 0) return 0;
    base[n] = 0;
    return snprintf(out, PATH_MAX, "%s/%s", base, path) < PATH_MAX;
}

static int path_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n < 0) return 0;
    out[n] = 0;
    return 1;
}

static unsigned long inode_of(const char *path) {
    struct stat st;
    return lstat(path, &st) ? 0 : (unsigned long)st.st_ino;
}

static unsigned long inode_fd(int fd) {
    struct stat st;
    return fstat(fd, &st) ? 0 : (unsigned long)st.st_ino;
}

static void out(const void *bytes, size_t n) {
    const char *at = bytes;
    while (n) {
        ssize_t done = REAL(write)(log_fd, at, n);
        if (done <= 0) abort();
        at += done;
        n -= (size_t)done;
    }
}

static void say(const char *format, ...) {
    if (log_fd < 0) return;
    char line[3 * PATH_MAX];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    out(line, (size_t)n);
}

/* Counts a change that is about to be made. Nonzero: it fails with errno. */
static int change(void) {
    changes++;
    if (changes == kill_at) kill(getpid(), SIGKILL);
    if (fail_at > 0 && changes >= fail_at && changes - fail_at < fail_count) {
        errno = (int)fail_errno;
        return -1;
    }
    return 0;
}

#define BEGIN pthread_mutex_lock(&turn)
#define END(value) do { int kept = errno; pthread_mutex_unlock(&turn); errno = kept; return (value); } while (0)

static int opened(int at, const char *path, int flags, mode_t mode, int (*next)(int, const char *, int, ...)) {
    char full[PATH_MAX];
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
    if (!writes || !root_len || !absolute(at, path, full) || !inside(full)) return next(at, path, flags, mode);
    BEGIN;
    int was = inode_of(full) != 0;
    int makes = !was && (flags & O_CREAT), cuts = was && (flags & O_TRUNC);
    if ((makes || cuts) && change()) END(-1);
    int fd = next(at, path, flags, mode);
    if (fd >= 0 && makes) say("create %lu %s\n", inode_fd(fd), full);
    if (fd >= 0 && cuts) say("length %lu 0 %s\n", inode_fd(fd), full);
    END(fd);
}

#define MODE va_list args; va_start(args, flags); mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(args, mode_t) : 0; va_end(args)

int openat(int at, const char *path, int flags, ...) { MODE; return opened(at, path, flags, mode, REAL(openat)); }
int openat64(int at, const char *path, int flags, ...) { MODE; return opened(at, path, flags, mode, REAL(openat64)); }
int open(const char *path, int flags, ...) { MODE; return opened(AT_FDCWD, path, flags, mode, REAL(openat)); }
int open64(const char *path, int flags, ...) { MODE; return opened(AT_FDCWD, path, flags, mode, REAL(openat64)); }

/* Whether the descriptor is of a file below the root. */
static int ours(int fd, char *path) { return root_len && fd != log_fd && path_of(fd, path) && inside(path); }

static ssize_t written(int fd, const void *bytes, size_t n, off_t at, char *path) {
    int appends = fcntl(fd, F_GETFL) & O_APPEND;
    struct stat st;
    if (at < 0) at = appends && !fstat(fd, &st) ? st.st_size : lseek(fd, 0, SEEK_CUR);
    if (changes + 1 == kill_at && n > 1) {
        REAL(pwrite)(fd, bytes, n / 2, at);
        say("write %lu %ld %zu %s\n", inode_fd(fd), (long)at, n / 2, path);
        if (log_fd >= 0) { out(bytes, n / 2); out("\n", 1); }
    }
    if (change()) return -1;
    return at;
}

ssize_t write(int fd, const void *bytes, size_t n) {
    char path[PATH_MAX];
    if (!ours(fd, path)) return REAL(write)(fd, bytes, n);
    BEGIN;
    off_t at = written(fd, bytes, n, -1, path);
    if (at < 0) END(-1);
    ssize_t done = REAL(write)(fd, bytes, n);
    if (done > 0 && log_fd >= 0) {
        say("write %lu %ld %zd %s\n", inode_fd(fd), (long)at, done, path);
        out(bytes, (size_t)done);
        out("\n", 1);
    }
    END(done);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    if (!ours(fd, path)) return REAL(writev)(fd, parts, count);
    /* As the parts one by one: a short write is allowed. */
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return write(fd, parts[i].iov_base, parts[i].iov_len);
    return 0;
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off_t at) {
    char path[PATH_MAX];
    if (!ours(fd, path)) return REAL(pwrite64)(fd, bytes, n, at);
    BEGIN;
    if (written(fd, bytes, n, at, path) < 0) END(-1);
    ssize_t done = REAL(pwrite64)(fd, bytes, n, at);
    if (done > 0 && log_fd >= 0) {
        say("write %lu %ld %zd %s\n", inode_fd(fd), (long)at, done, path);
        out(bytes, (size_t)done);
        out("\n", 1);
    }
    END(done);
}

static int cut(int fd, off_t length, int (*next)(int, off_t)) {
    char path[PATH_MAX];
    if (!ours(fd, path)) return next(fd, length);
    BEGIN;
    if (change()) END(-1);
    int done = next(fd, length);
    if (!done) say("length %lu %ld %s\n", inode_fd(fd), (long)length, path);
    END(done);
}
int ftruncate(int fd, off_t length) { return cut(fd, length, REAL(ftruncate)); }
int ftruncate64(int fd, off_t length) { return cut(fd, length, REAL(ftruncate64)); }

static int synced(int fd, int (*next)(int)) {
    char path[PATH_MAX];
    if (!ours(fd, path)) return next(fd);
    BEGIN;
    if (change()) END(-1);
    int done = next(fd);
    if (!done) say("sync %lu %s\n", inode_fd(fd), path);
    END(done);
}
int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

static int made(int at, const char *path, mode_t mode) {
    char full[PATH_MAX];
    if (!root_len || !absolute(at, path, full) || !inside(full)) return REAL(mkdirat)(at, path, mode);
    BEGIN;
    if (change()) END(-1);
    int done = REAL(mkdirat)(at, path, mode);
    if (!done) say("mkdir %lu %s\n", inode_of(full), full);
    END(done);
}
int mkdirat(int at, const char *path, mode_t mode) { return made(at, path, mode); }
int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }

static int renamed(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char a[PATH_MAX], b[PATH_MAX];
    int (*next)(int, const char *, int, const char *, unsigned) = REAL(renameat2);
    if (!root_len || !absolute(from_at, from, a) || !absolute(to_at, to, b) || !inside(b))
        return next(from_at, from, to_at, to, flags);
    BEGIN;
    if (change()) END(-1);
    int done = next(from_at, from, to_at, to, flags);
    /* Paths of artifacts hold no tabs. */
    if (!done) say("rename %lu %s\t%s\n", inode_of(b), a, b);
    END(done);
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return renamed(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned f) { return renamed(a, from, b, to, f); }

static int removed(int at, const char *path, int flags) {
    char full[PATH_MAX];
    if (!root_len || !absolute(at, path, full) || !inside(full)) return REAL(unlinkat)(at, path, flags);
    BEGIN;
    if (!inode_of(full)) END(REAL(unlinkat)(at, path, flags));
    if (change()) END(-1);
    int done = REAL(unlinkat)(at, path, flags);
    if (!done) say("unlink 0 %s\n", full);
    END(done);
}
int unlinkat(int at, const char *path, int flags) { return removed(at, path, flags); }
int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }

int clock_gettime(clockid_t id, struct timespec *now) {
    int done = REAL(clock_gettime)(id, now);
    if (!done && id == CLOCK_REALTIME && clock_at >= 0 && changes >= clock_at) now->tv_sec += clock_by;
    return done;
}
