/*
 * holder N UID USERS COMMANDS: holds N sleeping processes, spread over USERS uids from UID on and
 * over COMMANDS names. Says "ready" when all are there; ends them all when its input ends.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void be_one_of_them(int i, int uid, int users, int commands, int ready)
{
    char name[16];
    uid_t own = uid + i % users;

    snprintf(name, sizeof name, "held-%d", i / users % commands);
    prctl(PR_SET_NAME, name);
    if (setresgid(own, own, own) || setresuid(own, own, own))
        _exit(1);
    /* A change of uid clears it, so it comes last. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (write(ready, "", 1) != 1)
        _exit(1);
    close(ready);
    for (;;)
        pause();
}

int main(int count, char **args)
{
    int pipes[2], n, uid, users, commands, i;
    pid_t *pids;
    char byte;

    if (count != 5 || pipe(pipes))
        return 1;
    n = atoi(args[1]), uid = atoi(args[2]), users = atoi(args[3]), commands = atoi(args[4]);
    pids = calloc(n, sizeof *pids);
    for (i = 0; i < n; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            close(0);
            close(pipes[0]);
            be_one_of_them(i, uid, users, commands, pipes[1]);
        }
    }
    close(pipes[1]);
    for (i = 0; i < n && read(pipes[0], &byte, 1) == 1; i++)
        ;
    if (i == n) {
        puts("ready");
        fflush(stdout);
        while (read(0, &byte, 1) > 0)
            ;
    }
    for (i = 0; i < n; i++)
        if (pids[i] > 0)
            kill(pids[i], SIGKILL);
    while (wait(NULL) > 0)
        ;
    return 0;
}
