/*
 * churn N UID: N processes, one after the other on each of four lines, born with a name of their
 * own and gone.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINES = 4 };

static void line(int n, int uid)
{
    if (setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
        _exit(1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (n-- > 0) {
        pid_t pid = fork();
        if (pid == 0) {
            char name[16];
            snprintf(name, sizeof name, "churn-%d", n % 1000);
            prctl(PR_SET_NAME, name);
            _exit(0);
        }
        if (pid < 0 || waitpid(pid, NULL, 0) < 0)
            _exit(1);
    }
    _exit(0);
}

int main(int count, char **args)
{
    int i, status, failed = 0;

    if (count != 3)
        return 1;
    for (i = 0; i < LINES; i++)
        if (fork() == 0)
            line(atoi(args[1]) / LINES, atoi(args[2]));
    while (wait(&status) > 0)
        failed |= status;
    return failed != 0;
}
