/*
 * floor N: the least that a count by user and command can cost, N times: the pids of /proc, the
 * owner of each one's directory, and one read of its name. Nothing is counted or shown.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char entries[128 * 1024];

static unsigned long look(int proc, const char *pid)
{
    char path[32], name[64];
    struct stat owner;
    ssize_t length;
    int file;

    if (fstatat(proc, pid, &owner, 0))
        return 0;
    snprintf(path, sizeof path, "%s/comm", pid);
    file = openat(proc, path, O_RDONLY);
    if (file < 0)
        return 0;
    length = read(file, name, sizeof name);
    close(file);
    return length > 0 ? owner.st_uid + name[0] : 0;
}

int main(int count, char **args)
{
    int proc = open("/proc", O_RDONLY | O_DIRECTORY), scans = count == 2 ? atoi(args[1]) : 1;
    unsigned long sum = 0;

    while (scans-- > 0) {
        long length, offset;
        lseek(proc, 0, SEEK_SET);
        while ((length = syscall(SYS_getdents64, proc, entries, sizeof entries)) > 0) {
            for (offset = 0; offset < length;) {
                struct dirent64 *entry = (void *)(entries + offset);
                offset += entry->d_reclen;
                if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9')
                    sum += look(proc, entry->d_name);
            }
        }
    }
    /* So that the compiler cannot leave anything out. */
    fprintf(stderr, "%lu\n", sum);
    return 0;
}
